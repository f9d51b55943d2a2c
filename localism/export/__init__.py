"""Data and models as folders that other tools load: shapes, cards, and atomic writing."""
