"""Public corpora: what is known of them, and how they come to this machine.

Nothing is ever fetched but by ``charrnn data get`` or ``download``.
"""

from charrnn.data.catalogue import Corpus, read_catalogue
from charrnn.data.download import download
from charrnn.data.folder import find_fetched, path_of

__all__ = ["Corpus", "download", "find_fetched", "path_of", "read_catalogue"]
