"""The DICOM edge: receives studies, writes them down, hands them on, delivers results."""
