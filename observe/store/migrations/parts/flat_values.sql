    (k, s, b, i, d, a, m, y) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        k = 'double_value', toString(d),
        k = 'array_value', concat('{"otlp.array":"', base64Encode(a), '"}'),
        k = 'kvlist_value', concat('{"otlp.kvlist":"', base64Encode(m), '"}'),
        k = 'bytes_value', base64Encode(y),
        '') AS flat_text,
    attributes -> mapFromArrays((attributes).key, arrayMap(flat_text,
        ((attributes).value).value, ((attributes).value).string_value, ((attributes).value).bool_value,
        ((attributes).value).int_value, ((attributes).value).double_value, ((attributes).value).array_value,
        ((attributes).value).kvlist_value, ((attributes).value).bytes_value)) AS as_map
