"""``python -m genomamba``."""

import sys

from genomamba.pipelines.cli import main

sys.exit(main())
