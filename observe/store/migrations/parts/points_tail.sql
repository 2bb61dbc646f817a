                    )
                )
            )
        )
        ARRAY JOIN
            attributes, start_ns, time_ns, flags, exemplars, value, as_double, as_int, count, sum, min, max, bucket_counts,
            explicit_bounds, scale, zero_count, zero_threshold, positive_offset, positive_counts, negative_offset,
            negative_counts, quantiles, quantile_values
    )
)
SETTINGS enable_unaligned_array_join = 1
