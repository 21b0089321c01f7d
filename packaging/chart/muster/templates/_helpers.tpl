{{- define "muster.name" -}}
{{- if contains "muster" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-muster{{ end }}
{{- end }}

{{- define "muster.labels" -}}
app.kubernetes.io/name: muster
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "muster.domain" -}}
{{ include "muster.name" . }}-peers.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{- define "muster.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The secret with certificates; empty: peers have a key file. */}}
{{- define "muster.secret" -}}
{{- if .Values.tls.secret }}{{ .Values.tls.secret }}
{{- else if .Values.tls.issuer }}{{ include "muster.name" . }}-tls
{{- else if not .Values.peerKeys.secret }}{{ fail "set tls.secret, tls.issuer or peerKeys.secret: hosts need one of them to know each other" }}
{{- end }}
{{- end }}

{{- define "muster.commonName" -}}
{{- if .Values.tls.commonName }}{{ .Values.tls.commonName }}
{{- else if not .Values.tls.secret }}{{ include "muster.name" . }}
{{- end }}
{{- end }}

{{/* Flags of musterctl. */}}
{{- define "muster.clientFlags" -}}
{{- if include "muster.secret" . -}}
--cacert=/tls/ca.crt --cert=/tls/tls.crt --key=/tls/tls.key
{{- end }}
{{- end }}

{{- define "muster.endpoints" -}}
{{- $scheme := ternary "https" "http" (ne (include "muster.secret" .) "") }}
{{- $hosts := list }}
{{- range $i := until (int .Values.replicas) }}
{{- $hosts = append $hosts (printf "%s://%s-%d.%s:2379" $scheme (include "muster.name" $) $i (include "muster.domain" $)) }}
{{- end }}
{{- join "," $hosts }}
{{- end }}

{{- define "muster.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "muster.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
