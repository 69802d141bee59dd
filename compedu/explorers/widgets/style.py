"""The style of explorers: sizes and colors, which follow JupyterLab's light and dark themes through its variables."""

STYLE = """<style>
.compedu { max-width: 848px; font-size: 13px; color: var(--jp-ui-font-color1, #222);
  overflow-x: auto; overflow-y: hidden; }
.compedu .widget-html-content { line-height: 1.3; }
.compedu p { margin: 2px 0; }
.compedu label { font-weight: 600; font-size: 12px; }
.compedu-top { align-items: center; gap: 6px; }
.compedu-top input { font-family: var(--jp-code-font-family, monospace); }
.compedu-top > .widget-text { min-width: min(280px, 100%); }
.compedu-state { min-width: 196px; padding-right: 8px; text-align: right; white-space: nowrap; }
.compedu-top > :last-child { margin-left: auto; }
.compedu-about { font-size: 12px; margin-top: 2px; overflow-wrap: anywhere; }
.compedu-help { text-decoration: underline dotted; cursor: help; }
.compedu-badge { font-weight: 700; font-size: 12px; padding: 1px 8px; border-radius: 3px; border: 2px solid #8C8C8C; }
.compedu-badge.PREVIEW { border-style: dashed; border-color: #56B4E9; }
.compedu-badge.MEASURING, .compedu-badge.RUNNING { border-color: #E69F00; }
.compedu-badge.FINAL { border-color: #0072B2; }
.compedu-badge.ERROR, .compedu-badge.CANCELLED { border-color: #D55E00; }
/* x6y6: the captions of the gauges */
:is(.compedu-PREVIEW, .compedu-RUNNING, .compedu-CANCELLED) .js-plotly-plot .x6y6 text { opacity: 0.65; }
.compedu-ERROR .js-plotly-plot { opacity: 0.45; }
.widget-tab:is(.compedu-PREVIEW, .compedu-RUNNING, .compedu-CANCELLED) > .widget-tab-contents { opacity: 0.65; }
.compedu-quiet { opacity: 0.8; font-size: 12px; }
.compedu-error { border-left: 4px solid #D55E00; padding: 2px 8px; white-space: pre-wrap; overflow-wrap: anywhere; }
.compedu-note { border-left: 4px solid #56B4E9; padding: 2px 8px; }
.compedu-error pre { font-size: 12px; max-height: 220px; overflow: auto; }
.compedu-left { padding-right: 4px; max-height: 390px; overflow-x: hidden; overflow-y: auto; }
.compedu-left > * { flex: 0 0 auto; }
.compedu-left button { padding: 0 8px; }
.compedu-knob .widget-html,
.compedu-knob .widget-html-content { height: auto; min-height: 0; line-height: 1.2; margin-bottom: 0; }
.compedu-strip { display: flex; gap: 10px; align-items: flex-start; overflow-x: auto; }
.compedu-strip figure { margin: 0; text-align: center; flex: none; }
.compedu-strip img { image-rendering: pixelated; display: block; margin: 0 auto; }
.compedu-strip > .compedu-quiet { flex: none; }
.compedu-strip figcaption { font-size: 12px; }
.compedu-button { width: auto; margin: 2px; padding: 0 8px; }
.compedu .widget-tab > .widget-tab-contents { padding: 2px 4px; border: none; max-height: 82px; overflow: auto; }
.compedu .widget-tab.compedu-tall > .widget-tab-contents { max-height: 320px; }
.compedu .widget-tab > .lm-TabBar .lm-TabBar-tab { flex: 0 1 auto; min-width: 60px; padding: 0 10px;
  line-height: 24px; }
.compedu-table { border-collapse: collapse; font-size: 12px; margin: 2px 0 6px 0; color: inherit; }
.compedu-table caption { text-align: left; font-weight: 600; }
.compedu-table td, .compedu-table th { padding: 0 10px 0 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid rgba(140,140,140,.35); }
.compedu .js-plotly-plot .infolayer text, .compedu .js-plotly-plot .cartesianlayer text,
.compedu .js-plotly-plot .textpoint text, .compedu .js-plotly-plot .bartext
  { fill: var(--jp-ui-font-color1, #444) !important; }
.jp-OutputArea .js-plotly-plot:has(.main-svg[style*="background: rgba(0, 0, 0, 0)"]) :is(.xtick, .ytick, .infolayer,
  .legend, .textpoint) text { fill: var(--jp-ui-font-color1, #444) !important; }
.compedu .noUi-handle:focus, .compedu button:focus-visible, .compedu input:focus-visible, .compedu select:focus-visible
  { outline: 3px solid #E69F00; outline-offset: 1px; }
@media (prefers-reduced-motion: reduce) { .compedu * { transition: none !important; animation: none !important; } }
</style>"""
