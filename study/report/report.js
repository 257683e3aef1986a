// Draws every figure from the JSON beside it, in the colours of the page's light or dark scheme.
(function () {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // Buttons are listed, not struck off a list: the library's own has one that uploads the chart. Both settings are off too.
  const buttons = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const config = { responsive: true, displaylogo: false, modeBarButtons: buttons, showSendToCloud: false, plotlyServerURL: "" };

  function themed(layout) {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink-soft").trim();
    const grid = style.getPropertyValue("--rule").trim();
    const paper = style.getPropertyValue("--paper").trim();
    const copy = JSON.parse(JSON.stringify(layout));
    copy.font = { color: ink, size: 13, family: getComputedStyle(document.body).fontFamily };
    copy.modebar = { bgcolor: "rgba(0,0,0,0)", color: grid, activecolor: ink };
    copy.hoverlabel = { bgcolor: paper, bordercolor: grid, align: "left", font: { color: style.getPropertyValue("--ink").trim() } };
    for (const key of Object.keys(copy)) {
      if (/^[xy]axis/.test(key)) copy[key].gridcolor = grid;
    }
    return copy;
  }

  function draw() {
    for (const place of document.querySelectorAll("[data-figure]")) {
      const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
      Plotly.react(place, figure.data, themed(figure.layout), config);
    }
  }

  dark.addEventListener("change", draw);
  draw();
})();
