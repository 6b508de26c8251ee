"""What is raised of data that cannot be used."""

from dsnn.store.untrusted import printable


class DataError(ValueError):
    """Data that cannot be used; the message is one sentence with the rule, the value received and the fix."""

    def __init__(self, sentence: str = ""):
        super().__init__(printable(sentence))
