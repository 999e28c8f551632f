{{- define "dray.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* What the names of all objects begin with. */}}
{{- define "dray.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "dray.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Of roles in the cluster, and in other namespaces. */}}
{{- define "dray.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "dray.fullname" .) }}
{{- end }}

{{/* Where the pods of jobs run that are no DrayJobs. */}}
{{- define "dray.jobNamespace" -}}
{{ .Values.kubernetes.jobNamespace | default (printf "%s-jobs" .Release.Namespace) }}
{{- end }}

{{- define "dray.selector" -}}
app.kubernetes.io/name: {{ include "dray.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dray.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "dray.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "dray.image" -}}
{{- with .Values.image -}}
{{ with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "dray.tokenSecret" -}}
{{ .Values.token.existingSecret | default (printf "%s-token" (include "dray.fullname" .)) }}
{{- end }}

{{/* Whether the chart brings a Redis: "true" or "". */}}
{{- define "dray.ownRedis" -}}
{{ if not (or .Values.redis.url .Values.redis.existingSecret) }}true{{ end }}
{{- end }}

{{- define "dray.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "dray.fullname" .)) }}
{{- end }}

{{- define "dray.redisKey" -}}
{{ ternary .Values.redis.key "url" (not (empty .Values.redis.existingSecret)) }}
{{- end }}

{{/* The claim of the volume that API and operators share, or "". */}}
{{- define "dray.outputsClaim" -}}
{{- with .Values.outputs.claim }}
{{- if .existing }}{{ .existing }}{{ else if .enabled }}{{ include "dray.fullname" $ }}-outputs{{ end }}
{{- end }}
{{- end }}

{{- define "dray.outputsURL" -}}
{{- if .Values.outputs.url }}{{ .Values.outputs.url }}{{ else if include "dray.outputsClaim" . }}file:///outputs{{ end }}
{{- end }}

{{/* What was made at the first install, of a Secret's key; else what is given, else something new. */}}
{{- define "dray.kept" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .secret }}
{{- if .given }}{{ .given }}
{{- else if and $found (hasKey ($found.data | default dict) .key) }}{{ index $found.data .key | b64dec }}
{{- else }}{{ randAlphaNum 32 }}
{{- end }}
{{- end }}

{{/* The names of the API's Service, as clients in the cluster use them, and those from outside. */}}
{{- define "dray.hosts" -}}
{{- $name := printf "%s-api" (include "dray.fullname" .) }}
{{- $namespace := .Release.Namespace }}
{{- $hosts := list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) (printf "%s.%s.svc.cluster.local" $name $namespace) }}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end }}
{{- if .Values.httpRoute.enabled }}{{ $hosts = concat $hosts .Values.httpRoute.hostnames }}{{ end }}
{{- concat $hosts .Values.api.hosts | uniq | join "," }}
{{- end }}
