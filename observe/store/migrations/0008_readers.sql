-- What readers of other versions of the exporter's tables ask for by name. Nothing is stored for these.

ALTER TABLE otel_traces
    ADD COLUMN IF NOT EXISTS ResourceAttributeItems Array(String)
        ALIAS arrayMap((k, v) -> concat(k, '=', v), mapKeys(ResourceAttributes), mapValues(ResourceAttributes)),
    ADD COLUMN IF NOT EXISTS SpanAttributeItems Array(String)
        ALIAS arrayMap((k, v) -> concat(k, '=', v), mapKeys(SpanAttributes), mapValues(SpanAttributes));

ALTER TABLE otel_logs
    ADD COLUMN IF NOT EXISTS TimestampTime DateTime ALIAS toDateTime(Timestamp),
    ADD COLUMN IF NOT EXISTS `__otel_materialized_k8s.cluster.name` String ALIAS ResourceAttributes['k8s.cluster.name'],
    ADD COLUMN IF NOT EXISTS `__otel_materialized_k8s.container.name` String
        ALIAS ResourceAttributes['k8s.container.name'],
    ADD COLUMN IF NOT EXISTS `__otel_materialized_k8s.deployment.name` String
        ALIAS ResourceAttributes['k8s.deployment.name'],
    ADD COLUMN IF NOT EXISTS `__otel_materialized_k8s.namespace.name` String
        ALIAS ResourceAttributes['k8s.namespace.name'],
    ADD COLUMN IF NOT EXISTS `__otel_materialized_k8s.node.name` String ALIAS ResourceAttributes['k8s.node.name'],
    ADD COLUMN IF NOT EXISTS `__otel_materialized_k8s.pod.name` String ALIAS ResourceAttributes['k8s.pod.name'],
    ADD COLUMN IF NOT EXISTS `__otel_materialized_k8s.pod.uid` String ALIAS ResourceAttributes['k8s.pod.uid'],
    ADD COLUMN IF NOT EXISTS `__otel_materialized_deployment.environment.name` String
        ALIAS ResourceAttributes['deployment.environment.name'];
