"""What is counted of the work on objects, for Prometheus. docs/kubernetes.md lists them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PASSES = Counter("dray_kubernetes_reconciles_total", "Passes over objects", ["result"])
SECONDS = Histogram("dray_kubernetes_reconcile_duration_seconds", "How long a pass over one object took")
ERRORS = Counter("dray_kubernetes_errors_total", "Passes that failed, by what did not do its part", ["of"])
DEPTH = Gauge("dray_kubernetes_queue_depth", "Objects that are due")
OBJECTS = Gauge("dray_kubernetes_objects", "Objects that are known")
LEADING = Gauge("dray_kubernetes_leading", "Whether this replica deals with objects")
STALLED = Counter("dray_kubernetes_watch_stalls_total", "Times that the watch had not told of what a list showed")
