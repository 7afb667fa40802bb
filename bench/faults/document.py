def write_document():
    return "later"
