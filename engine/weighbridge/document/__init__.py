"""A report as one HTML file that stands by itself: for a reviewer to read, an auditor to keep, a release to carry."""

from weighbridge.document.audit import audit
from weighbridge.document.page import document

__all__ = ["audit", "document"]
