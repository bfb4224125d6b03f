"""The playground: one page, and what stands behind it: look at a model, swap its layers, see what comes of it.

schemes     what a layer can become, by the words of the page
requests    what may be asked, checked before anything is done
clean       no path of the disk in any answer
events      what a job says while it works, replayed to a page that was reloaded
jobs, store one job after another for each model; finished ones outlive the server
models      a workbench process for each model: it may crash, and is then started again
uploads     files of strangers: streamed to a folder of their own, refused by their first bytes
recipes     a choice of layers as a recipe that `bitnet-train run` takes
runs, run_jobs  runs on this disk and their curves; a run that is started from the page
routes, app     the addresses, and the whole of it
workbench/  the process that holds one model
"""
