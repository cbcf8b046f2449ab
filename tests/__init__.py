"""The tests of charrnn, and what they share."""
