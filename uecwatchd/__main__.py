import sys

from uecwatchd.cli.main import main

sys.exit(main())
