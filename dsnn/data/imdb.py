"""IMDb film reviews (Maas et al. 2011): 25000 to train and 25000 to test, of two sentiments, as sparse bags of words.

The official archive only: copies met elsewhere were altered. The publisher gives no digest of it; this one is recorded
by many projects that download from there (TensorFlow Datasets among them). Reviews are ordered by sentiment, then file
name; the vocabulary and the document frequencies come from the training part alone. Unlabelled reviews are left out.
"""

from pathlib import Path, PurePosixPath

import numpy as np

from dsnn.data import archive, newsgroups
from dsnn.data.files import File, locate
from dsnn.data.split import Arrays, DataError, Split, check_fraction, seeded_mask

FILES = (
    File(
        "aclImdb_v1.tar.gz",
        ("c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",),
        ("https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",),
    ),
)
SENTIMENTS = ("neg", "pos")
DEFAULT_VALIDATION = 0.1


def load(
    root: Path,
    seed: int,
    val_fraction: float | None,
    *,
    weighting: str = "tfidf",
    vocabulary: int | None = None,
    min_documents: int = 2,
    stop_words: str | None = None,
    sublinear: bool = True,
) -> Split:
    """Returns the split with CSR rows; the words are in ``extra["vocabulary"]``, one per column.

    Args:
        root: the data folder.
        seed: chooses the validation reviews, each sentiment in proportion.
        val_fraction: of the 25000, in [0, 1); a tenth by default.
        weighting: ``tfidf``, rows of Euclidean length 1, or ``counts`` of words.
        vocabulary: keep the most frequent words only; None keeps all.
        min_documents: leave out words in fewer training reviews than this; at least 1.
        stop_words: ``english`` leaves out scikit-learn's list of common words; None keeps them.
        sublinear: 1 + log(count) for count in tfidf.

    Raises:
        DataError: an option is out of range, or the archive is not this set.
    """
    newsgroups.check_words(weighting, vocabulary, min_documents, stop_words)
    (texts, labels), (test_texts, test_labels) = _read(locate(root, "imdb", FILES[0]))
    mask = seeded_mask(labels, seed, check_fraction(val_fraction, DEFAULT_VALIDATION))
    parts = ([t for t, m in zip(texts, mask, strict=True) if not m], [t for t, m in zip(texts, mask, strict=True) if m])
    words = newsgroups.vectoriser(weighting, vocabulary, min_documents, stop_words, sublinear).fit(parts[0])
    train, val, test = (
        Arrays(newsgroups.sparse_rows(words, part), y)
        for part, y in zip((*parts, test_texts), (labels[~mask], labels[mask], test_labels), strict=True)
    )
    extra = {"vocabulary": words.get_feature_names_out().astype(str)}
    return Split(train, val, test, len(SENTIMENTS), "imdb", class_names=SENTIMENTS, extra=extra)


def _read(place: Path) -> list[tuple[list[str], np.ndarray]]:
    """Returns (reviews, labels) of the training and the test part, negative ones first, each by file name."""
    found: dict[str, list[tuple[int, str, str]]] = {"train": [], "test": []}
    for name, content in archive.members(place):
        path = PurePosixPath(name).parts
        if len(path) == 4 and path[0] == "aclImdb" and path[1] in found and path[2] in SENTIMENTS:
            found[path[1]].append((SENTIMENTS.index(path[2]), path[3], content.decode("utf-8", "replace")))
    parts = []
    for name, reviews in found.items():
        if not reviews:
            raise DataError(f"{place} must hold reviews under aclImdb/{name}/neg/ and pos/, got none.")
        reviews.sort()
        texts = [text.replace("<br />", " ") for _, _, text in reviews]
        parts.append((texts, np.array([label for label, _, _ in reviews], np.int32)))
    return parts
