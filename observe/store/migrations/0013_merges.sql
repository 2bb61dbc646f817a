-- Parts are merged column by column from the first row on. Row by row, as ClickHouse does it below 131,072 rows, the
-- attributes' maps cost three times as much, and most merges are of parts as small as that: docs/decisions.md, "Store".

ALTER TABLE otel_traces MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;

ALTER TABLE otel_logs MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;

ALTER TABLE otel_metrics_gauge MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;

ALTER TABLE otel_metrics_sum MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;

ALTER TABLE otel_metrics_histogram MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;

ALTER TABLE otel_metrics_exponential_histogram MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;

ALTER TABLE otel_metrics_summary MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1;
