{{- /* Labels of an object. Selectors have `mlops/release` and `mlops/part`; pods of runs have the first one too. */ -}}
{{- define "mlops.labels" -}}
app.kubernetes.io/name: mlops
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/component: {{ .part }}
{{ include "mlops.selector" . }}
{{- end -}}

{{- define "mlops.selector" -}}
mlops/release: {{ .root.Release.Name }}
mlops/part: {{ .part }}
{{- end -}}

{{- define "mlops.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $tag := required (printf "images.%s.tag has to name one build" .image) $image.tag -}}
{{- if eq $tag "latest" }}{{ fail (printf "images.%s.tag: `latest` names no build; give each a tag of its own" .image) }}{{ end -}}
{{ required (printf "images.%s.repository is missing" .image) $image.repository }}:{{ $tag }}
{{- end -}}

{{- /* The secrets that are variables of each process, as on one machine (mlops_assets/local/environment.py), with what its own folder lacks there. */ -}}
{{- define "mlops.secrets" -}}
mlflow: [MLOPS_POSTGRES_URL, MLOPS_OIDC_CLIENT_SECRET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
online: [MLOPS_REDIS_URL, MLOPS_SERVING_TOKEN, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
stream: [MLOPS_NATS_URL, MLOPS_REDIS_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
shipper: [MLOPS_NATS_URL]
ray: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
dagster-webserver: [MLOPS_POSTGRES_URL, MLOPS_OIDC_CLIENT_SECRET]
all: [MLOPS_POSTGRES_URL, MLOPS_NATS_URL, MLOPS_REDIS_URL, MLOPS_NOTIFY_URLS, MLOPS_SERVING_TOKEN, MLOPS_OPENLINEAGE_API_KEY, MLOPS_OIDC_CLIENT_SECRET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
required: [MLOPS_POSTGRES_URL, MLOPS_NATS_URL, MLOPS_REDIS_URL]
{{- end -}}

{{- /* What every container has. `process` names its secrets, `files` the ones of the state folder. */ -}}
{{- define "mlops.container" -}}
{{- $secrets := include "mlops.secrets" .root | fromYaml -}}
image: {{ include "mlops.image" . | quote }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
envFrom:
  - configMapRef: {name: {{ .root.Release.Name }}-{{ .environment | default "environment" }}}
env:
{{- range index $secrets .process }}
  - name: {{ . }}
    valueFrom: {secretKeyRef: {name: {{ $.root.Values.secrets.variables }}, key: {{ . }}, optional: {{ not (has . $secrets.required) }}}}
{{- end }}
{{- include "mlops.confinement" .root | nindent 0 }}
volumeMounts:
{{- include "mlops.mounts" .root | nindent 2 }}
{{- range .files }}
  - {name: files, mountPath: /var/lib/mlops/{{ . }}, subPath: {{ . }}, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Files of a server that lets people and applications in. */ -}}
{{- define "mlops.doorFiles" -}}
- access_token
{{- if .Values.secrets.hasCallers }}
- callers.json
{{- end }}
{{- end -}}

{{- define "mlops.confinement" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "mlops.mounts" -}}
- {name: state, mountPath: /var/lib/mlops}
- {name: dagster-home, mountPath: /var/lib/mlops/dagster}
- {name: scratch, mountPath: /tmp}
{{- end -}}

{{- define "mlops.instanceMounts" -}}
- {name: instance, mountPath: /var/lib/mlops/dagster/dagster.yaml, subPath: dagster.yaml, readOnly: true}
- {name: instance, mountPath: /var/lib/mlops/dagster/workspace.yaml, subPath: workspace.yaml, readOnly: true}
{{- end -}}

{{- /* What every pod has beside its containers. `state` and `scratch` are limits of what it writes. */ -}}
{{- define "mlops.pod" -}}
serviceAccountName: {{ .root.Release.Name }}-{{ .account }}
automountServiceAccountToken: {{ .token }}
{{- include "mlops.placement" .root | nindent 0 }}
volumes:
{{- include "mlops.volumes" (dict "root" .root "state" (.state | default "2Gi") "scratch" "2Gi" "claim" .claim) | nindent 2 }}
  - {name: instance, configMap: {name: {{ .root.Release.Name }}-dagster}}
{{- end -}}

{{- define "mlops.placement" -}}
enableServiceLinks: false
securityContext: {{ toJson .Values.podSecurityContext }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "mlops.volumes" -}}
{{- if .claim }}
- {name: state, persistentVolumeClaim: {claimName: {{ .claim }}}}
{{- else if .state }}
- {name: state, emptyDir: {sizeLimit: {{ .state }}}}
{{- end }}
- {name: dagster-home, emptyDir: {sizeLimit: {{ .scratch }}}}
- {name: scratch, emptyDir: {sizeLimit: {{ .scratch }}}}
- {name: files, secret: {secretName: {{ .root.Values.secrets.files }}, defaultMode: 0440}}
{{- end -}}

{{- /* Pods are replaced when what they read at their start changes. */ -}}
{{- define "mlops.annotations" -}}
checksum/environment: {{ include (print .root.Template.BasePath "/environment.yaml") .root | sha256sum }}
checksum/dagster: {{ include (print .root.Template.BasePath "/dagster.yaml") .root | sha256sum }}
{{- end -}}

{{- define "mlops.tcpProbes" -}}
startupProbe: {tcpSocket: {port: {{ . }}}, periodSeconds: 5, failureThreshold: 60}
livenessProbe: {tcpSocket: {port: {{ . }}}, periodSeconds: 20, failureThreshold: 3}
readinessProbe: {tcpSocket: {port: {{ . }}}, periodSeconds: 5}
{{- end -}}
