    `Exemplars.FilteredAttributes`, `Exemplars.TimeUnix`, `Exemplars.Value`, `Exemplars.IntValue`, `Exemplars.SpanId`,
    `Exemplars.TraceId`,
