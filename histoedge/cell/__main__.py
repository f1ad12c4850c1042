"""``python -m histoedge.cell``: the child that opens exported files."""

from histoedge.cell.child import open_exported, serve
from histoedge.cell.protocol import prepare

serve(open_exported, prepare=prepare)
