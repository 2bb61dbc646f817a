    (k, s, b, i, d) -> multiIf(
        k = 'string_value', s,
        k = 'int_value', toString(i),
        k = 'bool_value', toString(b),
        toString(d)) AS plain_text,
    attributes -> mapFromArrays((attributes).key, arrayMap(plain_text, ((attributes).value).value,
        ((attributes).value).string_value, ((attributes).value).bool_value, ((attributes).value).int_value,
        ((attributes).value).double_value)) AS point_map
