"""A run on one page: its curve, its losses beside n-grams, its samples, what it learnt by heart.

    gather   what the run folder and its model tell
    figures  plots of it, by matplotlib
    page     one HTML file that needs nothing else
    drawing, html   the look of plots and pages, for others too
    writer   where they are kept

Knows runs, not how they are trained.
"""
