"""What ``/metrics`` tells, in the form that Prometheus reads."""

from __future__ import annotations

from ftk import Reply
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Counts:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made = {"registry": self.registry}
        self.requests = Counter("ftk_requests", "Requests by path and status.", ("path", "status"), **made)
        self.prompt_tokens = Counter("ftk_prompt_tokens", "Tokens of prompts that were answered.", **made)
        self.tokens = Counter("ftk_generated_tokens", "Tokens of answers.", **made)
        self.running = Gauge("ftk_running", "Answers in the making.", **made)
        self.waiting = Gauge("ftk_waiting", "Answers that wait for their turn.", **made)
        self.first = Histogram("ftk_time_to_first_piece_seconds", "Until an answer begins.", buckets=SECONDS, **made)
        self.whole = Histogram("ftk_answer_seconds", "Until an answer ends.", buckets=SECONDS, **made)

    def answered(self, reply: Reply, seconds: float) -> None:
        self.prompt_tokens.inc(reply.num_prompt_tokens)
        self.tokens.inc(reply.num_tokens)
        self.whole.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
