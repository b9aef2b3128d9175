import sys

from uecwatchd.cli import main

sys.exit(main())
