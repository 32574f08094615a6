{{/*
The fleets of this release: one for all schemas, or in mode single one for each.  A fleet is a ledger
namespace with its coordinators and workers; what it does not say itself is said above `perSchema`.
*/}}
{{- define "cartridge-warp.fleets" -}}
{{- $full := include "cartridge-warp.fullname" . -}}
{{- $ledger := dig "coordination" "namespace" .Release.Name .Values.config -}}
{{- $fleets := list -}}
{{- if eq .Values.mode "single" -}}
  {{- range .Values.config.schemas -}}
    {{- $own := get $.Values.perSchema .name | default dict -}}
    {{- $plain := regexReplaceAll "[^a-z0-9]+" (lower .name) "-" | trimAll "-" -}}
    {{- $dns := $plain | trunc 20 | trimSuffix "-" -}}
    {{- if or (ne $plain .name) (ne $plain $dns) -}}{{/* two names must not become one */}}
      {{- $dns = printf "%s-%s" ($dns | trunc 13 | trimSuffix "-") (sha256sum .name | trunc 6) | trimPrefix "-" -}}
    {{- end -}}
    {{- $fleets = append $fleets (dict
          "name" $dns
          "full" (printf "%s-%s" ($full | trunc 30 | trimSuffix "-") $dns)
          "schema" .name
          "ledger" (printf "%s.%s" $ledger $dns)
          "identifier" (replace "-" "_" $dns)
          "coordinator" (mergeOverwrite (deepCopy $.Values.coordinator) (deepCopy (get $own "coordinator" | default dict)))
          "worker" (mergeOverwrite (deepCopy $.Values.worker) (deepCopy (get $own "worker" | default dict)))
          "autoscaling" (mergeOverwrite (deepCopy $.Values.autoscaling) (deepCopy (get $own "autoscaling" | default dict)))
          "env" (get $own "env" | default list)) -}}
  {{- end -}}
{{- else -}}
  {{- $fleets = append $fleets (dict
        "name" "all" "full" $full "schema" "" "ledger" $ledger "identifier" ""
        "coordinator" .Values.coordinator "worker" .Values.worker
        "autoscaling" .Values.autoscaling "env" list) -}}
{{- end -}}
{{- toYaml (dict "fleets" $fleets) -}}
{{- end }}

{{/* Is the source one whose log is followed through a slot of the server's? */}}
{{- define "cartridge-warp.hasSlot" -}}
{{- $source := get .Values.config "source" | default dict -}}
{{- if or (eq (get $source "type" | default "") "postgresql") (hasPrefix "postgres" (get $source "connection_string" | default "" | toString)) }}yes{{ end -}}
{{- end }}

{{/* Units that keep one worker's pod as busy as it should be, in thousandths: the rest of its slots
     takes what a leaving worker gives back.  As coordinator/autoscale.py has it. */}}
{{- define "cartridge-warp.unitsPerPod" -}}
{{- mul (int .worker.processes) (int .worker.slots) 800 -}}
{{- end }}
