"""Kubernetes as a backend: one Job with one Pod for each of Dray's jobs."""
