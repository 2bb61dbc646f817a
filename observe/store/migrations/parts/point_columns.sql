    ResourceAttributes, ResourceSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, ScopeDroppedAttrCount, ScopeSchemaUrl,
    ServiceName, MetricName, MetricDescription, MetricUnit, Attributes, StartTimeUnix, TimeUnix, Flags,
    ResourceDroppedAttributesCount, ResourceEntities, Metadata, Service, Origin, Window, Series, Instance, Host, HwId, Labels,
