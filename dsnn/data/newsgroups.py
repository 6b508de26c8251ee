"""20 Newsgroups, by date (Lang 1995): 11314 training and 7532 later test messages as sparse bags of words.

Headers, signatures and quotes are removed as scikit-learn does, because with them a message is recognised by who wrote
it. Rows stay sparse (scipy CSR) until a batch is taken. Messages are ordered by group, then file name; the vocabulary
and the document frequencies come from the training part alone.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import scipy.sparse as sparse

from dsnn.data import archive
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, seeded_mask

FILES = (
    File(
        "20news-bydate.tar.gz",
        (
            "8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",  # what the address serves
            "fbaf43a9534cf573c27e130c0640796be80685208f57138a89821fe0084dd279",  # the same messages, repacked
        ),
        ("https://ndownloader.figshare.com/files/5975967",),
    ),
)
PARTS = ("20news-bydate-train", "20news-bydate-test")
REMOVABLE = ("headers", "footers", "quotes")
WEIGHTINGS = ("tfidf", "counts")
DEFAULT_VALIDATION = 0.1
QUOTE = re.compile(r"(writes in|writes:|wrote:|says:|said:|^In article|^Quoted from|^\||^>)")


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    weighting: str = "tfidf",
    vocabulary: int | None = None,
    min_documents: int = 2,
    stop_words: str | None = "english",
    sublinear: bool = True,
    remove: tuple[str, ...] | list[str] = REMOVABLE,
) -> Split:
    """Returns the split with CSR rows; the words are in ``extra["vocabulary"]``, one per column.

    Args:
        root: the data folder.
        seed: chooses the validation messages, each group in proportion.
        val_fraction: of the 11314, in [0, 1); a tenth by default.
        weighting: ``tfidf``, rows of Euclidean length 1, or ``counts`` of words.
        vocabulary: keep the most frequent words only; None keeps all.
        min_documents: leave out words in fewer training messages than this; at least 1.
        stop_words: ``english`` leaves out scikit-learn's list of common words; None keeps them.
        sublinear: 1 + log(count) for count in tfidf.
        remove: any of ``headers``, ``footers`` and ``quotes``.

    Raises:
        DataError: an option is out of range, or the archive is not this set.
    """
    check_words(weighting, vocabulary, min_documents, stop_words)
    if unknown := [name for name in remove if name not in REMOVABLE]:
        raise DataError(f"remove must name any of {', '.join(REMOVABLE)}, got {unknown[0]!r}.")
    (texts, labels, groups), (test_texts, test_labels, test_groups) = _read(locate(root, "20newsgroups", FILES[0]))
    if groups != test_groups:
        raise DataError(f"both parts must have the same groups, got {len(groups)} and {len(test_groups)}.")
    mask = seeded_mask(labels, seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    texts, test_texts = ([strip(text, remove) for text in part] for part in (texts, test_texts))
    parts = ([t for t, m in zip(texts, mask, strict=True) if not m], [t for t, m in zip(texts, mask, strict=True) if m])
    words = vectoriser(weighting, vocabulary, min_documents, stop_words, sublinear).fit(parts[0])
    train, val, test = (
        Arrays(sparse_rows(words, part), y)
        for part, y in zip((*parts, test_texts), (labels[~mask], labels[mask], test_labels), strict=True)
    )
    extra = {"vocabulary": words.get_feature_names_out().astype(str)}
    return Split(train, val, test, len(groups), "20newsgroups", class_names=groups, extra=extra)


def strip(text: str, remove: tuple[str, ...] | list[str]) -> str:
    """Returns a message without its headers, footers and quotes, in this order, as ``fetch_20newsgroups`` does.

    Args:
        text: of the message.
        remove: which of the three.
    """
    if "headers" in remove:  # everything up to the first empty line
        text = text.partition("\n\n")[2]
    if "footers" in remove:  # everything from the last line that is empty or hyphens, unless it is the first
        lines = text.strip().split("\n")
        last = max((i for i, line in enumerate(lines) if not line.strip().strip("-")), default=0)
        text = "\n".join(lines[:last]) if last > 0 else text
    if "quotes" in remove:
        text = "\n".join(line for line in text.split("\n") if not QUOTE.search(line))
    return text


def vectoriser(
    weighting: str, vocabulary: int | None, min_documents: int, stop_words: str | None, sublinear: bool
) -> Any:
    """Returns scikit-learn's vectoriser with these options, as `load` explains them."""
    from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer  # here: importing it takes a second

    options = {"max_features": vocabulary, "min_df": min_documents, "stop_words": stop_words, "dtype": np.float32}
    return CountVectorizer(**options) if weighting == "counts" else TfidfVectorizer(sublinear_tf=sublinear, **options)


def sparse_rows(words: Any, texts: list[str]) -> sparse.csr_array:
    """Returns the texts as sparse rows of a fitted vectoriser."""
    if not texts:  # which scikit-learn refuses
        return sparse.csr_array((0, len(words.vocabulary_)), dtype=np.float32)
    return sparse.csr_array(words.transform(texts), dtype=np.float32)


def check_words(weighting: str, vocabulary: int | None, min_documents: int, stop_words: str | None) -> None:
    """Checks the options of `vectoriser`.

    Raises:
        DataError: one is out of range.
    """
    if weighting not in WEIGHTINGS:
        raise DataError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}.")
    if vocabulary is not None and (isinstance(vocabulary, bool) or not isinstance(vocabulary, int) or vocabulary < 1):
        raise DataError(f"vocabulary must be an integer of at least 1 or left out, got {vocabulary!r}.")
    if isinstance(min_documents, bool) or not isinstance(min_documents, int) or min_documents < 1:
        raise DataError(f"min_documents must be an integer of at least 1, got {min_documents!r}.")
    if stop_words not in (None, "english"):
        raise DataError(f"stop_words must be 'english' or None, got {stop_words!r}.")


def _read(place: Path) -> list[tuple[list[str], np.ndarray, tuple[str, ...]]]:
    """Returns (texts, labels, groups) of the training and the test part, ordered by group, then file name."""
    found: dict[str, list[tuple[str, str, str]]] = {part: [] for part in PARTS}
    for name, content in archive.members(place):
        path = PurePosixPath(name)
        if len(path.parts) == 3 and path.parts[0] in found:
            found[path.parts[0]].append((path.parts[1], path.parts[2], content.decode("latin-1")))
    parts = []
    for name, messages in found.items():
        if not messages:
            raise DataError(f"{place} must hold messages under {name}/<group>/, got none.")
        messages.sort()
        groups = tuple(sorted({group for group, _, _ in messages}))
        labels = np.array([groups.index(group) for group, _, _ in messages], np.int32)
        parts.append(([text for _, _, text in messages], labels, groups))
    return parts
