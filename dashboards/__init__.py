"""The Streamlit pages. They ask the API and know no SQL."""
