"""The looks of explorers: sizes and colours, following JupyterLab's light and dark theme through its own variables."""

STYLE = """<style>
.compedu { max-width: 900px; font-size: 13px; color: var(--jp-ui-font-color1, #222); line-height: 1.35; }
.compedu .widget-html-content, .compedu .jupyter-widgets { line-height: 1.35; }
.compedu-top { display: flex; gap: 10px; align-items: center; }
.compedu-badge { font-weight: 700; padding: 0 8px; border-radius: 3px; border: 2px solid #8C8C8C; }
.compedu-badge.PREVIEW { border-style: dashed; border-color: #56B4E9; }
.compedu-badge.MEASURING, .compedu-badge.RUNNING { border-color: #E69F00; }
.compedu-badge.FINAL { border-color: #0072B2; }
.compedu-badge.ERROR, .compedu-badge.CANCELLED { border-color: #D55E00; }
.compedu-quiet { opacity: 0.75; }
.compedu-error { border-left: 4px solid #D55E00; padding: 2px 8px; white-space: pre-wrap; overflow-wrap: anywhere; }
.compedu-strip { display: flex; gap: 6px; min-height: 58px; align-items: flex-start; overflow-x: auto; }
.compedu-strip figure { margin: 0; text-align: center; } .compedu-strip img { image-rendering: pixelated; display: block; }
.compedu-strip figcaption { font-size: 11px; }
.compedu-code { font-family: var(--jp-code-font-family, monospace); font-size: 12px; user-select: all; overflow-wrap: anywhere; }
.compedu-table { border-collapse: collapse; font-size: 12px; margin: 4px 0 8px 0; }
.compedu-table caption { text-align: left; font-weight: 600; }
.compedu-table td, .compedu-table th { padding: 1px 8px; text-align: left; border-bottom: 1px solid rgba(140,140,140,.35); }
.compedu svg text { fill: var(--jp-ui-font-color1, #444) !important; }
.compedu .widget-label, .compedu label { color: var(--jp-ui-font-color1, #222); }
.compedu .noUi-handle:focus { outline: 3px solid #E69F00; }
@media (prefers-reduced-motion: reduce) { .compedu * { transition: none !important; } }
</style>"""
