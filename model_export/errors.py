"""What can stop an export. A stopped export leaves nothing behind.

ExportError
├── OutputExistsError      the bundle's path is taken
├── PrecisionListError     a precision of tables that there is not
├── BudgetError            a parameter budget that is none, or that no way to serve the model keeps
├── RunRefusedError        the run cannot be opened
│   ├── RunNotFinishedError  its training has not ended
│   ├── RunChangedError      a file differs from its digest, or the files do not belong together
│   ├── FusionMissingError   its fusion phase never ran: there is nothing that merges
│   ├── NonFiniteError       a weight is NaN or infinite, or all are finite and a score is not
│   └── VarianceError        a variance of batch normalisation is negative
├── NoRoomError            too little disk to time the graphs; the bundle is written by then
├── GraphError             the graph could not be built, or costs more than it may
└── ParityError            the merged model does not compute what the fusion form computes
    ├── ParityNameError    inputs, outputs or fields differ
    ├── ParityShapeError   the names agree, shapes differ
    └── ParityValueError   the shapes agree, values are out of tolerance
"""


class ExportError(Exception):
    """An export was refused or failed; the message says where, what was expected and what was found."""


class OutputExistsError(ExportError):
    """The output path is taken; a bundle is never overwritten."""


class PrecisionListError(ExportError):
    """A precision of tables that there is not."""


class BudgetError(ExportError):
    """A budget of parameters that cannot be read, or cannot be kept."""


class RunRefusedError(ExportError):
    """The run directory cannot be exported."""


class RunNotFinishedError(RunRefusedError):
    """The run's training has not ended."""


class RunChangedError(RunRefusedError):
    """A file of the run differs from its recorded digest, or two files contradict each other."""


class FusionMissingError(RunRefusedError):
    """The run's fusion phase never ran."""


class NonFiniteError(RunRefusedError):
    """A weight is NaN or infinite, or all are finite and a score is not."""


class VarianceError(RunRefusedError):
    """A variance of batch normalisation is negative: it has no square root."""


class NoRoomError(ExportError):
    """The directory for temporary files cannot hold the graphs that are to be timed."""


class GraphError(ExportError):
    """The graph could not be built, optimised or checked, or it costs more than it may."""


class ParityError(ExportError):
    """The exported model does not compute what the fusion form computes."""


class ParityNameError(ParityError):
    """Names of inputs, outputs or fields differ."""


class ParityShapeError(ParityError):
    """Names agree, shapes differ."""


class ParityValueError(ParityError):
    """Shapes agree, values are out of tolerance."""
