    MODIFY COLUMN Window DateTime('UTC')
        DEFAULT toDateTime(intDiv(toUnixTimestamp64Nano(TimeUnix), 10000000000) * 10, 'UTC') CODEC(Delta, LZ4),
    -- A sum of hashes does not depend on the order of the attributes.
    MODIFY COLUMN Series UInt64 DEFAULT cityHash64(ServiceName, MetricName, ScopeName,
        arraySum((k, v) -> cityHash64(k, v), mapKeys(Attributes), mapValues(Attributes)),
        arraySum((k, v) -> cityHash64(k, v), mapKeys(ResourceAttributes), mapValues(ResourceAttributes))),
    MODIFY COLUMN Instance LowCardinality(String) DEFAULT ResourceAttributes['service.instance.id'],
    MODIFY COLUMN Host LowCardinality(String) DEFAULT arrayFirst(name -> name != '', [ResourceAttributes['host.name'],
        Attributes['host.name'], Attributes['Hostname'], Attributes['hostname']]),
    MODIFY COLUMN HwId LowCardinality(String) DEFAULT arrayFirst(name -> name != '', [Attributes['hw.id'],
        Attributes['UUID'], Attributes['gpu_uuid'], Attributes['hw.gpu.id']]),
    MODIFY COLUMN Labels LowCardinality(String) DEFAULT arrayStringConcat(arraySort(arrayMap((k, v) -> concat(k, '=', v),
        mapKeys(mapFilter((k, v) -> k NOT IN ('host.name', 'Hostname', 'hostname', 'hw.id', 'UUID', 'gpu_uuid',
            'hw.gpu.id'), Attributes) AS rest), mapValues(rest))), ',')
