{{/* What the pods of API, operator and test share. */}}
{{- define "dray.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "dray.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "dray.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "dray.container" -}}
image: {{ include "dray.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "dray.containerSecurity" . | nindent 2 }}
{{- end }}

{{- define "dray.environment" -}}
- name: REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ include "dray.redisSecret" . }}, key: {{ include "dray.redisKey" . }}}}
- name: DRAY_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "dray.tokenSecret" . }}, key: {{ .Values.token.key }}}}
{{- if eq .Values.backend "kubernetes" }}
- {name: DRAY_BACKEND, value: kubernetes}
- {name: DRAY_IMAGE, value: {{ include "dray.image" . | quote }}}
- {name: DRAY_JOB_NAMESPACE, value: {{ include "dray.jobNamespace" . }}}
{{- with .Values.kubernetes.jobNamespaces }}
- {name: DRAY_JOB_NAMESPACES, value: {{ join "," . | quote }}}
{{- end }}
{{- if .Values.kubernetes.root }}
- {name: DRAY_ROOT, value: "yes"}
{{- end }}
{{- end }}
{{- with include "dray.outputsURL" . }}
- {name: DRAY_OUTPUTS, value: {{ . | quote }}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{- define "dray.environmentFrom" -}}
{{- with .Values.outputs.secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "dray.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if include "dray.outputsClaim" . }}
- {name: outputs, mountPath: /outputs}
{{- end }}
{{- end }}

{{- define "dray.volumes" -}}
- {name: data, emptyDir: {}}
- {name: tmp, emptyDir: {}}
{{- with include "dray.outputsClaim" . }}
- {name: outputs, persistentVolumeClaim: {claimName: {{ . }}}}
{{- end }}
{{- end }}

{{/* Takes root, of (the values of the part), part. */}}
{{- define "dray.placement" -}}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "dray.spread" -}}
topologySpreadConstraints:
{{- if .of.topologySpreadConstraints }}
  {{- toYaml .of.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "dray.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.part }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Probes of API and operator, on the port `http`. */}}
{{- define "dray.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 15
  timeoutSeconds: 10
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 6
{{- end }}
