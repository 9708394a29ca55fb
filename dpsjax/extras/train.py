"""Imported first by what needs the extra ``train``: an ImportError that names it, or nothing."""

from dpsjax.extras import require_train

require_train("this part of dpsjax")
