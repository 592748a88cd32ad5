"""DICOMweb (PS3.18): STOW-RS in and out, QIDO-RS and WADO-RS as a client."""
