// Draws every figure from the packed JSON beside it, in the colours of the page's light or dark scheme, and enlarges pictures.
(async function () {
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

  const figures = new Map(); // an element of the page -> the JSON of what is drawn in it
  const hidden = new Set(); // names of routes; a trace says its route as `meta`

  function draw(width, share = 1) {
    for (const [place, json] of figures) {
      const figure = JSON.parse(json);
      for (const trace of figure.data) if (hidden.has(trace.meta)) trace.visible = false;
      const { height: whole, meta: { stays } } = figure.layout;
      const height = width ? Math.min(stays + (whole - stays) * share, LONGEST) : whole;
      Plotly.react(place, figure.data, { ...themed(figure.layout), width, height }, config);
    }
  }

  // A sheet of paper is narrower than a window, and what is drawn does not follow by itself.
  const PRINTED = 670; // pixels: fits A4 and letter, upright
  const LOWER = 0.7; // of its height, but for what has to stay: so that two fit below each other
  const LONGEST = 860;
  window.addEventListener("beforeprint", () => draw(PRINTED, LOWER));
  window.addEventListener("afterprint", () => draw());

  async function unpacked(id) {
    const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  const dialog = document.querySelector("dialog");
  for (const button of document.querySelectorAll(".enlarge")) {
    button.addEventListener("click", () => {
      const picture = button.querySelector("img");
      dialog.querySelector("div").replaceChildren(picture.cloneNode());
      dialog.querySelector("p").textContent = picture.alt;
      dialog.showModal();
    });
  }
  dialog?.addEventListener("click", () => dialog.close());

  for (const box of document.querySelectorAll("input[data-route]")) {
    box.addEventListener("change", () => {
      hidden[box.checked ? "delete" : "add"](box.dataset.route);
      for (const row of document.querySelectorAll("tr[data-route], figure[data-route]")) row.hidden = hidden.has(row.dataset.route);
      draw();
    });
  }

  for (const field of document.querySelectorAll(".filter input")) {
    const rows = field.closest("section").querySelectorAll("tbody tr");
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
  }

  // By the number that a cell begins with, or by its text; a second click turns the order round.
  function sort(table, column, heading) {
    const down = heading.getAttribute("aria-sort") !== "descending";
    const factors = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
    const key = (row) => {
      const text = row.cells[column].textContent.trim();
      const found = text.replace("\u2212", "-").match(/^([+-]?[\d.,]+)\s*([kMGTP](?![a-z]))?/);
      return found ? Number(found[1].replaceAll(",", "")) * (factors[found[2]] ?? 1) : text;
    };
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => order(key(a), key(b)) * (down ? -1 : 1)));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.className = "sort";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, column, heading));
      heading.append(button);
    });
  }

  // The policy of the page lets no script in from elsewhere, but a new element may hold one.
  const plotly = document.createElement("script");
  plotly.textContent = await unpacked("plotly");
  document.head.append(plotly);
  for (const place of document.querySelectorAll("[data-figure]")) figures.set(place, await unpacked(place.dataset.figure));
  dark.addEventListener("change", () => draw());
  draw();
})();
