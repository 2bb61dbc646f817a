"""What puts records on the stream: OTLP receivers, GPUs, inference servers, hosts."""
