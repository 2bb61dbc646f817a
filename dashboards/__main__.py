"""`python -m dashboards`: Streamlit's command line, with what the pages need already loaded.

Streamlit imports pandas when a page first needs it. Two visitors at once then import it from two threads, by different
ways in, and one of them may see it half made.
"""

import sys
from importlib import import_module

from streamlit.web.cli import main

if __name__ == "__main__":
    for name in ("pandas", "pyarrow", "altair"):
        import_module(name)
    sys.argv[0] = "streamlit"
    main()
