{{- define "homefed.fullname" -}}
{{- if contains "homefed" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-homefed" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "homefed.isHub" -}}{{ if or (eq .Values.role "hub") (eq .Values.role "both") }}true{{ end }}{{- end }}
{{- define "homefed.isHome" -}}{{ if or (eq .Values.role "home") (eq .Values.role "both") }}true{{ end }}{{- end }}

{{- define "homefed.hasPrometheus" -}}
{{- if include "homefed.isHome" . }}{{ if eq (kindOf .Values.prometheus.enabled) "bool" }}{{ if .Values.prometheus.enabled }}true{{ end }}{{ else if not .Values.prometheus.url }}true{{ end }}{{ end }}
{{- end }}

{{- define "homefed.prometheusUrl" -}}
{{- if include "homefed.hasPrometheus" . }}http://{{ include "homefed.fullname" . }}-prometheus.{{ .Release.Namespace }}.svc:9090{{ else }}{{ .Values.prometheus.url }}{{ end }}
{{- end }}

{{- define "homefed.ledgerUrl" -}}
{{- if .Values.ledger.enabled }}{{ ternary "https" "http" (not (empty .Values.ledger.tls.existingSecret)) }}://{{ include "homefed.fullname" . }}-ledger.{{ .Release.Namespace }}.svc:8080{{ else }}{{ required "ledger.url is required where ledger.enabled is false" .Values.ledger.url }}{{ end }}
{{- end }}

{{- define "homefed.federationId" -}}
{{- required "federation.id is required: a DNS label that names your federation for ever, e.g. --set federation.id=garden-lane" .Values.federation.id }}
{{- end }}

{{/* A scrape may not last longer than its interval. */}}
{{- define "homefed.scrapeTimeout" -}}
{{- if .Values.prometheus.scrapeTimeout }}{{ .Values.prometheus.scrapeTimeout }}
{{- else if regexMatch "^[1-9]s$" .Values.prometheus.scrapeInterval }}{{ .Values.prometheus.scrapeInterval }}
{{- else }}10s{{ end }}
{{- end }}

{{- define "homefed.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}

{{- define "homefed.labels" -}}
app.kubernetes.io/name: homefed
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "homefed.selector" -}}
app.kubernetes.io/name: homefed
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Pod-level settings that every one of our pods has: the restricted profile. */}}
{{- define "homefed.podSecurity" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "homefed.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "homefed.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  failureThreshold: 6
  timeoutSeconds: 5
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 2
  timeoutSeconds: 5
{{- end }}

{{/* A claim, an existing claim, or an emptyDir. Argument: dict "settings" (values) "name" (claim). */}}
{{- define "homefed.volume" -}}
{{- if .settings.ephemeral }}emptyDir: {sizeLimit: {{ .settings.size }}}
{{- else }}persistentVolumeClaim: {claimName: {{ .settings.existingClaim | default .name }}}
{{- end }}
{{- end }}

{{- define "homefed.claim" -}}
{{- if not (or .settings.ephemeral .settings.existingClaim) }}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "homefed.labels" .root | nindent 4 }}
  annotations: {helm.sh/resource-policy: keep}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: {{ .settings.size }}}}
  {{- if not (kindIs "invalid" .settings.storageClassName) }}
  storageClassName: {{ .settings.storageClassName | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "homefed.uninstallHook" -}}
helm.sh/hook: pre-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
