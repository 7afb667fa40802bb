"""Secrets taken out of text: of log lines, error messages, receipts, ledgers and pages.

Two kinds are known: what looks like a token of the services that people fine-tune with, and the very values that stand
in environment variables with names like HF_TOKEN.
"""

from __future__ import annotations

import os
import re

REDACTED = "[redacted]"

PATTERN = re.compile(
    "|".join(
        (
            r"\bhf_[A-Za-z0-9]{20,}",  # Hugging Face
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",  # AWS access keys
            r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})",  # GitHub
            r"\bsk-[\w-]{20,}",  # OpenAI and those that copied its form
            r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*",  # JSON web tokens (RFC 7519)
            r"(?i:(?<=\bbearer )[\w.~+/-]{16,}=*)",  # RFC 6750
            r"(?i:(?<=\bbasic )[\w+/-]{16,}=*)",  # RFC 7617
            r"(?<=://)[^/\s@\"']+(?=@)",  # user information of a URL (RFC 3986, 3.2.1)
            r"(?i:(?<=[?&]token=)|(?<=[?&]api_key=)|(?<=[?&]access_token=))[^&\s\"']+",
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        )
    )
)

SECRET_NAMES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "ACCESS_KEY", "PRIVATE_KEY")
"""How names of environment variables end that hold secrets."""

SHORTEST = 8
"""Characters; a shorter value may be any word, and no service gives such secrets."""


def redact(text: str) -> str:
    """The text with every secret in it replaced."""
    if len(text) < SHORTEST:
        return text
    for secret in _from_environment():
        text = text.replace(secret, REDACTED)
    return PATTERN.sub(REDACTED, text)


def holds_secret(text: str) -> bool:
    """Whether something in the text would be taken out."""
    return redact(text) != text


def _from_environment() -> list[str]:
    named = (value for name, value in os.environ.items() if name.upper().endswith(SECRET_NAMES))
    found = [value for value in named if len(value) >= SHORTEST]
    return sorted(found, key=len, reverse=True)  # one may be the beginning of another
