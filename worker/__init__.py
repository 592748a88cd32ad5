"""Turns a complete study into findings and DICOM results."""
