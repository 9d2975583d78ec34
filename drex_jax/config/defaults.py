"""The configuration every experiment starts from: each field, its default and its meaning; and its JSON form."""

from __future__ import annotations

import hashlib
import json
import keyword
import os
import pathlib
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from drex_jax.common.errors import UserError
from drex_jax.common.files import json_of

Config = Any  # a ConfigDict, to whoever reads its fields: what they hold has no static types

_EACH = ("size", "batch_size", "l2")
_GRAPHS = ("layers", "neighbours", "edge_dropout")
RANKER_FIELDS: dict[str, tuple[str, ...]] = {  # which fields of `ranker` a model reads
    "crane": (*_EACH, *_GRAPHS),
    "crane_released": (*_EACH, *_GRAPHS, "first_modality"),
    "crane_released_axis_fixed": (*_EACH, *_GRAPHS, "first_modality"),
    "lightgcn": (*_EACH, "layers", "edge_dropout"),
    "freedom": (*_EACH, *_GRAPHS, "first_modality", "feature_weight"),
    "vbpr": _EACH,
    "bpr": _EACH,
    "popularity": (),
}
RANKERS = tuple(RANKER_FIELDS)
RANKER_SETTINGS: dict[str, dict[str, Any]] = {  # where a model has others than the defaults; docs/results.md has why
    "crane": {"ranker.layers": 3, "ranker.edge_dropout": 0.5},
    "crane_released": {
        "ranker.batch_size": 8192,  # a step costs the square of the items, whatever the batch
        "ranker.edge_dropout": 0.8,
        "ranker.l2": 0.0,
        "train.learning_rate": 5e-3,
        "train.epochs": 50,
    },
    "crane_released_axis_fixed": {"ranker.edge_dropout": 0.8, "ranker.l2": 0.0},
    "lightgcn": {"ranker.layers": 3},
    "freedom": {"ranker.edge_dropout": 0.8},
    "vbpr": {"ranker.l2": 0.1},
    "bpr": {"ranker.l2": 1e-2},
}
RANKER_SPACES: dict[str, tuple[str, ...]] = {  # what tools/tune.py tries
    "crane": (
        "ranker.layers=2,3",
        "ranker.edge_dropout=0.3,0.5,0.8",
        "ranker.l2=1e-6..1e-2",
        "crane.rounds=0,1,2,3",
        "crane.contrastive_weight=1e-3..1e-1",
    ),
    "crane_released": ("ranker.edge_dropout=0.5,0.8", "ranker.l2=1e-6..1e-2", "train.learning_rate=1e-3..1e-2"),
    "crane_released_axis_fixed": ("ranker.edge_dropout=0.2,0.5,0.8", "ranker.l2=1e-6..1e-2"),
    "lightgcn": ("ranker.layers=1,2,3,4", "ranker.l2=1e-6..1e-1"),
    "freedom": (
        "ranker.layers=2,3",
        "ranker.edge_dropout=0.8,0.9",
        "ranker.feature_weight=1e-5..1e-2",
        "ranker.l2=1e-6..1e-2",
    ),
    "vbpr": ("ranker.l2=1e-4..1.0", "train.learning_rate=5e-4..5e-3"),
    "bpr": ("ranker.l2=1e-4..1.0", "train.learning_rate=5e-4..5e-3"),
}


def base() -> ConfigDict:
    """A new configuration with every field at its default. Experiments change values; unknown fields are refused."""
    config: Any = ConfigDict()  # Any: what its fields hold is theirs to say
    config.seed = 0
    config.replicas = 1  # train seeds seed .. seed + replicas - 1 and report their mean
    config.protocol = "strict"  # strict: mask everything a user touched before; mmrec: mask train only

    config.data = ConfigDict()
    config.data.name = ""  # for results; empty: from the format and the path
    config.data.format = "synthetic"  # synthetic amazon yelp movielens table mmrec
    config.data.path = placeholder(str)  # a file, or the folder that holds the format's files
    config.data.tfds_dir = placeholder(str)  # amazon yelp table: prepared here by TFDS, once, and read from here
    config.data.cache_dir = placeholder(str)  # for compiled programs; None: drex_jax in the user's cache folder
    config.data.max_interactions = placeholder(int)  # the earliest n in time order
    config.data.max_bad_share = 0.05  # stop above this share of rejected rows
    config.data.max_ids = 100_000_000  # stop above so many different users, or items: they are held in memory
    config.data.k_core = 0  # keep users and items with at least k interactions, iterated; 0: off
    config.data.rating_min = placeholder(float)  # the scale; None: the data set's definition
    config.data.rating_max = placeholder(float)
    config.data.columns = ConfigDict()  # format=table: which column holds what; empty: the file has none
    # (any other name in data.columns is a vector modality)
    for column, default in (("user", "user"), ("item", "item"), ("rating", "rating"), ("timestamp", "timestamp")):
        config.data.columns[column] = default
    config.data.columns.text = "text"
    config.data.columns.split = ""
    config.data.item_features = ()  # format=mmrec: which NAME of the files NAME_feat.npy; empty: all there are
    config.data.time_format = ""  # format=table: strptime format of the time column; empty: seconds or ISO 8601
    config.data.missing = ConfigDict()  # control: shares of train interactions that lose a modality
    for modality in ("rating", "text", "time", "vectors"):
        config.data.missing[modality] = 0.0
    config.data.synthetic = ConfigDict()
    config.data.synthetic.num_interactions = 6000  # num_: `items` is a method of ConfigDict
    config.data.synthetic.num_users = 300
    config.data.synthetic.num_items = 200
    config.data.synthetic.missing_text = 0.1
    config.data.synthetic.missing_rating = 0.0
    config.data.synthetic.noise = 0.5
    config.data.synthetic.seed = 0

    config.split = ConfigDict()
    config.split.kind = "global_time"  # global_time leave_last_out random given
    config.split.validation = 0.1
    config.split.test = 0.1

    config.text = ConfigDict()
    config.text.enabled = True
    config.text.encoder = "subwords"  # subwords: trained with the model; bert: a frozen one of a Hugging Face folder
    config.text.shuffled = False  # control: every text moves to another interaction of the same split part
    config.text.vocabulary_size = 8000  # of encoder=subwords, as are width and dropout
    config.text.max_tokens = 128
    config.text.width = 32
    config.text.dropout = 0.2
    config.text.bert = ConfigDict()  # of encoder=bert, extra `bert`; text.max_tokens then counts word pieces
    config.text.bert.folder = placeholder(str)  # config.json, tokenizer.json or vocab.txt, model.safetensors
    config.text.bert.pooling = "mean"  # mean cls, or attention: learned, with text.width and text.dropout; has keywords
    config.text.bert.finetune = False  # of pooling=attention: the BERT is trained with the rest, and kept in the run
    config.text.bert.learning_rate = 2e-5  # its peak, where it is trained
    config.text.bert.dtype = "float32"  # float32 bfloat16

    config.model = ConfigDict()
    config.model.name = "drex"  # drex, narre, or one that only ranks: config.RANKERS
    config.model.state_size = 16
    config.model.feature_size = 16
    config.model.head = "dot"  # dot mlp
    config.model.hidden_size = 64  # of the mlp head
    config.model.partner = True  # each side's update reads the other side's state
    config.model.rating_modality = True
    config.model.time_modality = True
    config.model.vector_modalities = True
    config.model.offsets = False  # a learned start of their own for those met in train, beside the shared one
    config.model.offset_dropout = 0.5
    config.model.residual = True  # predict what the running bias leaves over, and feed its terms to the head
    config.model.dropout = 0.5
    config.model.products = "float32"  # bfloat16: factors of the recurrence's products; states and sums stay float32
    config.model.rating_weight = 1.0
    config.model.ranking_weight = 1.0
    config.model.ranking_loss = "sampled_softmax"  # sampled_softmax bpr
    config.model.negatives = 32

    config.ranker = ConfigDict()  # of models that only rank
    config.ranker.size = 64  # of the embeddings
    config.ranker.batch_size = 2048
    config.ranker.l2 = 1e-4  # weight of the squared embeddings of a batch's users and items
    config.ranker.layers = 2  # products with the graph of users and items
    config.ranker.neighbours = 10  # of an item in the graph of items
    config.ranker.edge_dropout = 0.0  # the share of interactions that an epoch's graph of users and items leaves out
    config.ranker.feature_weight = 1e-3  # freedom: of the loss on features alone
    config.ranker.first_modality = (
        0.1  # freedom, crane_released*: weight of the graph of images, or else of the first modality by name
    )

    config.crane = ConfigDict()
    config.crane.rounds = 2  # of cross-modal attention; 0: projections alone
    config.crane.user_profiles = True  # users have content: what they liked, refined as items are
    config.crane.leave_one_out = True  # in training a profile leaves out the very item that is scored
    config.crane.semantic_graph = True  # a product with the graph of items that are alike
    config.crane.graph_epochs = 1  # build it anew every n epochs, on refined content; 0: once, on the features
    config.crane.contrastive_weight = 0.005
    config.crane.anchors = 512  # of a batch's users and items, that look for their other view among all of them
    config.crane.temperature = 0.2

    config.narre = ConfigDict()  # as validation on Musical Instruments chose; its encoder is that of config.text
    config.narre.size = 16  # of factors, reviews' features and the attention
    config.narre.reviews = 5  # the latest of a user, and of an item, that it reads
    config.narre.batch_size = 256  # interactions a step, at the most
    config.narre.l2 = 4.0  # weight of the squared rows of users and items, beside the sum of squared errors
    config.narre.dropout = 0.0  # of the product of a user's and an item's row

    config.tune = ConfigDict()  # what tools/tune.py searches, on validation
    config.tune.space = ()  # "FIELD=VALUE,VALUE,..." or "FIELD=LOW..HIGH" (log-uniform)
    config.tune.search = "random"  # random grid
    config.tune.trials = 20

    config.train = ConfigDict()
    config.train.epochs = 25
    config.train.bptt_windows = 8  # windows of the train stream, one update each; 1: full history
    config.train.learning_rate = 3e-3
    config.train.warmup_steps = 10
    config.train.decay = "cosine"  # of the learning rate, to a twentieth; none
    config.train.weight_decay = 0.1
    config.train.clip_norm = 1.0  # 0: off
    config.train.patience = 8
    config.train.selection = "mse"  # a validation metric
    config.train.checkpoint_seconds = 30.0  # a checkpoint after so much time, and at every stop
    config.train.checkpoint_steps = 0  # and whenever so many more updates are done; 0: by time alone
    config.train.tensorboard = False  # extra `tensorboard`

    config.schedule = ConfigDict()
    config.schedule.width = 0  # interactions a step; 0: the cheapest for the stream on this kind of device
    config.schedule.costs = placeholder(str)  # a table that tools/profile.py --write_costs wrote; None: the package's
    config.schedule.implementation = "auto"  # auto sequential autodiff blocked

    config.evaluate = ConfigDict()
    config.evaluate.cutoffs = (5, 10, 20)
    config.evaluate.threshold = placeholder(float)  # a rating at least this high is relevant; None: 0.75 of the range
    config.evaluate.block = 256
    config.evaluate.ranking = True

    config.baselines = ("global_mean", "bias", "running_bias", "popularity", "matrix_factorisation", "drex_ratings")

    config.devices = ConfigDict()
    config.devices.mapping = "shard_map"  # shard_map pmap; none: the first device alone
    config.devices.count = 0  # use so many; 0: all there are
    config.devices.recurrence = "auto"  # split each step's lanes over devices; replicated: all of them on every device
    config.devices.replicas = "auto"  # together: seeds train as one program; one_by_one; auto: together on accelerators
    config.devices.distributed = False  # many processes (`jax.distributed`), each with the same command
    config.lock()
    return config


def ranking(model: str, data: str, name: str) -> ConfigDict:
    """The configuration of a model that only ranks, on data in MMRec's layout, trained as published comparisons do.

    Adam at a constant rate, batches of 2,048, patience 20 on validation Recall@20, the file's own split, train items
    masked, all items candidates (`protocol=mmrec`).

    Args:
      model: its name, one of `RANKERS`.
      data: the folder, below the one that DREX_JAX_DATA names or else below `data/`.
      name: of the data set, for results.

    Raises:
      UserError: there is no such model.
    """
    if model not in RANKERS:
        raise UserError(f"{model!r} is none of the models that only rank: {' '.join(RANKERS)}")
    config: Any = base()
    config.protocol = "mmrec"
    config.data.format = "mmrec"
    config.data.name = name
    config.data.path = str(pathlib.Path(os.environ.get("DREX_JAX_DATA", "data"), data))
    config.split.kind = "given"
    config.text.enabled = False
    config.model.name = model
    config.train.update(
        epochs=1000,
        bptt_windows=1,
        learning_rate=1e-3,
        warmup_steps=0,
        decay="none",
        weight_decay=0.0,
        clip_norm=0.0,
        patience=20,
        selection="recall@20",
    )
    config.evaluate.cutoffs = (5, 10, 20, 50)
    config.baselines = () if model == "popularity" else ("popularity",)
    config.update_from_flattened_dict(RANKER_SETTINGS.get(model, {}))
    config.tune.space = RANKER_SPACES.get(model, ())
    return config


MAY_CHANGE = (  # of a run that is trained on; `train.epochs` where the learning rate does not decay
    "train.epochs",
    "train.checkpoint_seconds",
    "train.checkpoint_steps",
    "train.tensorboard",
)
LEFT_ASIDE = (  # what a run computes does not depend on it
    "devices.",  # but for rounding
    "tune.",  # which searches read (`drex_jax.training.tune`)
    "data.cache_dir",
)


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Every field by its dotted name (`train.epochs`), in alphabetical order; groups are left out."""
    fields: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            fields.update({f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()})
        else:
            fields[name] = value
    return fields


def to_json(config: ConfigDict) -> str:
    """The text of a run's `config.json`: every field with its value, a tuple as a list."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(path: pathlib.Path) -> Config:
    """The locked configuration that `to_json` wrote into the file at `path`.

    A field that the file lacks, because the run is older than the field, has its default.

    Raises:
      UserError: the file is missing, is no such JSON, or has a field or a type that this version does not know.
    """
    try:
        stored = ConfigDict(json_of(path))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: the folder {path.parent} holds no run") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no readable run configuration: {error}") from None
    config = base()
    for name, value in flatten(stored).items():
        add_column(config, name)
        try:
            config.update_from_flattened_dict({name: tuple(value) if isinstance(value, list) else value})
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path} has {name} = {value!r}, which this version of drex_jax does not know") from None
    return config


def add_column(config: ConfigDict, name: str) -> None:
    """Makes room for a vector modality's column: the field `name`, where it is a new one in `data.columns`.

    Raises:
      UserError: its last part cannot be the name of a field.
    """
    data: Any = config["data"]
    prefix, _, column = name.rpartition(".")
    if prefix == "data.columns" and column not in data.columns:
        if not column.isidentifier() or keyword.iskeyword(column) or hasattr(ConfigDict, column):
            raise UserError(f"{name}: {column!r} cannot name a vector modality; a plain word such as image can")
        with config.unlocked():
            data.columns[column] = ""


def differences(stored: ConfigDict, given: ConfigDict) -> list[str]:
    """One `field: stored value, given value` for every field in which two complete configurations differ.

    What is in `LEFT_ASIDE` may differ: a run may go on on other devices.
    """
    theirs, ours = flatten(stored), flatten(given)
    names = sorted(name for name in theirs | ours if not name.startswith(LEFT_ASIDE))
    return [f"{n}: {theirs.get(n)!r}, now {ours.get(n)!r}" for n in names if theirs.get(n) != ours.get(n)]


def sha256(config: ConfigDict) -> str:
    """A fingerprint of what decides what a run computes: equal for runs that are to give equal results on equal data.

    Left out: `LEFT_ASIDE`; what says only when a run saves and what it shows; and where the data are, which
    `dataset.sha256` stands for.
    """
    aside = {*MAY_CHANGE, "data.path", "data.tfds_dir"} - {"train.epochs"}
    fields = {name: value for name, value in flatten(config).items() if not name.startswith(LEFT_ASIDE)}
    kept = {name: value for name, value in fields.items() if name not in aside}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def require_agreement(stored: ConfigDict, given: ConfigDict, workdir: pathlib.Path, *, goes_on: bool = False) -> None:
    """Refuses a run directory made with another configuration.

    Args:
      stored: what it was made with.
      given: what is asked for now.
      workdir: the directory.
      goes_on: it is to be trained on: as long as no model in it is finished and no trial begun, fields of `MAY_CHANGE`
        may have changed.

    Raises:
      UserError: other fields differ; the message shows each with both values.
    """
    settled = any(next(workdir.glob(name), None) for name in ("**/run.json", "trials"))  # trials are compared
    may = MAY_CHANGE if goes_on and not settled else ()
    if "train.epochs" in may and flatten(given)["train.decay"] != "none":  # a decay runs over all epochs
        may = tuple(name for name in may if name != "train.epochs")
    changed = [each for each in differences(stored, given) if each.partition(":")[0] not in may]
    if changed:
        allowed = f" (until the first model is finished these may change: {' '.join(may)})" if may else ""
        raise UserError(
            f"{workdir} holds a run with another configuration ({'; '.join(changed)}); "
            f"give another --workdir, or the configuration it was made with{allowed}"
        )
