"""One module per layout of a data folder.

``found(folder)`` says whether a folder has the layout, ``read(folder, description)`` lists its patches.
"""
