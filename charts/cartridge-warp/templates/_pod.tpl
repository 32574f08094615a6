{{/* The environment of a container; `.root`, `.fleet`. */}}
{{- define "cartridge-warp.env" -}}
{{- $root := .root -}}
{{- $redis := $root.Values.redis -}}
- name: CARTRIDGE_WARP_CONFIG
  value: /etc/cartridge-warp/config.yaml
- name: CARTRIDGE_WARP_COORDINATION__NAMESPACE
  value: {{ .fleet.ledger | quote }}
- name: CARTRIDGE_WARP_REDIS_URL
{{- if $redis.secret }}
  valueFrom:
    secretKeyRef:
      name: {{ $redis.secret }}
      key: {{ $redis.urlKey }}
{{- else }}
  value: {{ printf "redis%s%s://%s/%d" (ternary "s" "" $redis.tls) (ternary "+cluster" "" $redis.cluster) (splitList "," $redis.address | first) (int $redis.database) | quote }}
{{- end }}
{{- if .fleet.schema }}
- name: CARTRIDGE_WARP_SCHEMA
  value: {{ .fleet.schema | quote }}
# Errands and markers of two fleets in one metadata schema would be taken for each other's.
- name: CARTRIDGE_WARP_DESTINATION__METADATA_SCHEMA
  value: {{ printf "%s_%s" (dig "destination" "metadata_schema" "cartridge_warp_metadata" $root.Values.config) .fleet.identifier | quote }}
{{- if include "cartridge-warp.hasSlot" $root }}
# A slot has one follower.
- name: CARTRIDGE_WARP_SOURCE__SLOT
  value: {{ printf "%s_%s" (dig "source" "slot" "cartridge_warp" $root.Values.config) .fleet.identifier | quote }}
- name: CARTRIDGE_WARP_SOURCE__PUBLICATION
  value: {{ printf "%s_%s" (dig "source" "publication" "cartridge_warp" $root.Values.config) .fleet.identifier | quote }}
{{- end }}
{{- end }}
{{- range $name, $from := $root.Values.secrets }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.secret }}
      key: {{ $from.key }}
{{- end }}
{{- with $root.Values.env }}
{{ toYaml . }}
{{- end }}
{{- with .fleet.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What the containers of both components have in common; `.root`, `.fleet`. */}}
{{- define "cartridge-warp.container" -}}
image: {{ include "cartridge-warp.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
env:
  {{- include "cartridge-warp.env" . | nindent 2 }}
ports:
  - name: metrics
    containerPort: 8080
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
volumeMounts:
  - name: config
    mountPath: /etc/cartridge-warp
    readOnly: true
  - name: tmp
    mountPath: /tmp
  {{- with .root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* The same of their pods; `.root`, `.component` values under `.of`. */}}
{{- define "cartridge-warp.pod" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
# Kubernetes would add variables named after our own service, with our own prefix.
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
volumes:
  - name: config
    configMap:
      name: {{ include "cartridge-warp.fullname" .root }}
  - name: tmp
    emptyDir:
      sizeLimit: {{ .root.Values.tmpSizeLimit }}
  {{- with .root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
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
{{- with .of.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
