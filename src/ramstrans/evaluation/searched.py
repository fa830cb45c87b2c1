"""The training images that an evaluation looks for neighbours among."""

import logging
from typing import Any, NamedTuple

from ramstrans.console import Progress
from ramstrans.data.loading.loader import ImageLoader, build_loader
from ramstrans.data.records import ImageSet
from ramstrans.errors import ConfigError, DataError
from ramstrans.evaluation.config import EvaluationConfig, EvaluationData
from ramstrans.evaluation.images import data_config, dataset_of, read_drawn
from ramstrans.hub import local_folder
from ramstrans.models.methods.method import Method
from ramstrans.saved.embeddings import Embeddings, load_index, made_by
from ramstrans.saved.metadata import ModelMetadata

logger = logging.getLogger(__name__)


class Neighbors(NamedTuple):
    """What is searched.

    Attributes:
        k: How many neighbours vote, with --knn.
        voters: The training images that do; None: no vote is asked for.
        photographs: The index beside the model, which the report shows; None: there is none.
    """

    k: int = 0
    voters: ImageLoader | None = None
    photographs: Embeddings | None = None


NO_NEIGHBORS = Neighbors()


def neighbors_among(
    config: EvaluationConfig,
    model: Method,
    metadata: ModelMetadata,
    images: ImageSet,
    loading: dict[str, Any],
    progress: Progress,
) -> Neighbors:
    """What an evaluation searches: the run's training images, those of `images` if they are of the run.

    An index of other features is left out, with a warning.

    Raises:
        DataError: The training images cannot be read.
    """
    index = None
    try:
        index = load_index(local_folder(config.run), made_by(model, metadata))
    except (ConfigError, DataError) as error:
        logger.warning("the report shows no training photographs: %s", error)
    if config.knn is None:
        return Neighbors(photographs=index)
    data = data_config(metadata.run_options("data"), EvaluationData())
    own = images if config.data.root is None else read_drawn(metadata, data, progress).images
    training, _ = dataset_of(metadata, own, "train", data, progress)
    return Neighbors(config.knn, build_loader(training, **loading), index)
