{{- define "stream-consumer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "stream-consumer.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "stream-consumer.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "stream-consumer.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What tells the pods of this release from those of another one. */}}
{{- define "stream-consumer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stream-consumer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "stream-consumer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "stream-consumer.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "stream-consumer.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "stream-consumer.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "stream-consumer.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The file that the daemon reads: the values, and where it has to listen. */}}
{{- define "stream-consumer.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $_ := set $config "http" (dict "host" "0.0.0.0" "port" 9464) }}
{{- toYaml $config }}
{{- end }}

{{/* Seconds of config.shutdown.grace, 25 by default. The schema lets in whole seconds and minutes. */}}
{{- define "stream-consumer.graceSeconds" -}}
{{- $grace := dig "shutdown" "grace" "25s" .Values.config }}
{{- if hasSuffix "m" $grace }}
{{- mul 60 (trimSuffix "m" $grace | int) }}
{{- else }}
{{- trimSuffix "s" $grace | int }}
{{- end }}
{{- end }}
