"""Inference servers (vLLM, SGLang, TGI, Triton): their Prometheus endpoints as OTLP metrics."""

from collectors.inference.scraper import run_inference

__all__ = ["run_inference"]
