# The public names and where they are: type checkers read this, and captioner/__init__.py to load each on first use.
from .bulk.options import FolderOptions as FolderOptions
from .bulk.pipeline import caption_paths as caption_paths
from .caption import Caption as Caption
from .captioner import Captioner as Captioner
from .captioner import load as load
from .checkpoint import Checkpoint as Checkpoint
from .checkpoint import load_checkpoint as load_checkpoint
from .cluster.engine import caption_on_cluster as caption_on_cluster
from .datasets import DatasetOptions as DatasetOptions
from .datasets import Record as Record
from .datasets import read_records as read_records
from .decoding.options import DecodingOptions as DecodingOptions
from .embed.folder import caption_folder as caption_folder
from .embed.folder import caption_inside as caption_inside
from .errors import CaptionerError as CaptionerError
from .errors import CheckpointError as CheckpointError
from .errors import DatasetError as DatasetError
from .errors import ImageError as ImageError
from .errors import OptionError as OptionError
from .errors import UnknownWordsError as UnknownWordsError
from .images import Preprocessing as Preprocessing
from .images import open_image as open_image
from .images.find import find_images as find_images
from .metrics.evaluate import score_captions as score_captions
from .metrics.ptb.tokenizer import tokenize as tokenize
from .saving import save_checkpoint as save_checkpoint
from .scoring import Score as Score
from .training.options import TrainingOptions as TrainingOptions
from .training.trainer import train as train
from .vocabulary import Vocabulary as Vocabulary

__version__: str
__all__: list[str]
