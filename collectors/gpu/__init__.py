"""GPUs: of this host through NVML, of others through DCGM exporters; OTLP metrics by the names of the OTel conventions
(`hw.*`), and DCGM's own names for what those do not cover.
"""

from collectors.gpu.collector import run_gpu

__all__ = ["run_gpu"]
