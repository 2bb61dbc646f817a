"""The host under the services: processor, memory, disks, network (psutil), by the names of the OTel conventions."""

from collectors.host.reader import run_host

__all__ = ["run_host"]
