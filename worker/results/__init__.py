"""Findings as DICOM objects: measurement report, text summary, overlay, refusal."""
